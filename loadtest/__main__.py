"""A headless load test: `python loadtest --images DIR --users 4 --duration-s 10 --out RUN.json`."""

from triptych_loadtest.__main__ import main

if __name__ == "__main__":
    main()
