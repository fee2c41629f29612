"""`python -m boost_qa.cli`."""

from boost_qa.cli import main

if __name__ == "__main__":
    main()
