"""``python -m hvx``"""

from hvx.cli import main

if __name__ == "__main__":  # a process that hvx starts (hvx gallery) imports this file and must not run it
    main(prog_name="hvx")
