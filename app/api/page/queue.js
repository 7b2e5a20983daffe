// Runs work on items, so many at once. Knows nothing of the work.

export class Queue {
  #waiting = [];
  #running = new Map();

  /** `work(item, signal)` must not throw; `idle` is called when all is done. */
  constructor({ most, work, idle }) {
    this.most = most;
    this.work = work;
    this.idle = idle;
  }

  /** Puts an item last; one that is under way already is broken off and begins anew. */
  add(item) {
    this.drop(item);
    this.#waiting.push(item);
    this.#next();
  }

  /** Forgets an item, and breaks off what is under way for it. */
  drop(item) {
    this.#waiting = this.#waiting.filter((other) => other !== item);
    this.#running.get(item)?.abort();
    this.#running.delete(item);
  }

  #next() {
    while (this.#waiting.length && this.#running.size < this.most) this.#run(this.#waiting.shift());
  }

  async #run(item) {
    const control = new AbortController();
    this.#running.set(item, control);
    await this.work(item, control.signal);
    if (control.signal.aborted) return;
    this.#running.delete(item);
    this.#next();
    if (!this.#running.size) this.idle();
  }
}
