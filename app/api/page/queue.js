// Runs work on items, a few at a time. Knows nothing of the work.

export class Queue {
  #waiting = [];
  #running = new Map();

  /** `work(item, signal)` should not throw; `idle` is called when everything is done. */
  constructor({ most, work, idle }) {
    this.most = most;
    this.work = work;
    this.idle = idle;
  }

  /** Appends an item; one that is already running is cancelled and starts again. */
  add(item) {
    this.drop(item);
    this.#waiting.push(item);
    this.#next();
  }

  /** Forgets an item, and cancels its work. */
  drop(item) {
    this.#waiting = this.#waiting.filter((other) => other !== item);
    this.#running.get(item)?.abort();
    this.#running.delete(item);
    this.#next(); // its place is free for another
  }

  #next() {
    while (this.#waiting.length && this.#running.size < this.most) this.#run(this.#waiting.shift());
  }

  async #run(item) {
    const control = new AbortController();
    this.#running.set(item, control);
    try {
      await this.work(item, control.signal);
    } finally {
      // what failed in an unforeseen way must not take a place for good
      if (!control.signal.aborted) {
        this.#running.delete(item);
        this.#next();
        if (!this.#running.size) this.idle();
      }
    }
  }
}
