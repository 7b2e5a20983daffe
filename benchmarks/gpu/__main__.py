"""`python -m benchmarks.gpu`: its processes find what they run in a module that has a name."""

from benchmarks.gpu.measure import main

if __name__ == "__main__":
    main()
