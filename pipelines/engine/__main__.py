"""`python -m headwise.pipelines.engine` is `headwise`; torchrun starts it in this form."""

from .command_line import main

if __name__ == "__main__":
    main()
