"""``python -m hvx``"""

from hvx.cli import main

if __name__ == "__main__":  # worker processes of hvx gallery import this file and must not run it
    main(prog_name="hvx")
