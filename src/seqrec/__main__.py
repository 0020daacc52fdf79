"""`python -m seqrec` is `seqrec`."""

from seqrec.cli import main

if __name__ == "__main__":
    main()
