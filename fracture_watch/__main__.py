"""``python -m fracture_watch``."""

from fracture_watch.cli import main

if __name__ == "__main__":
    main()
