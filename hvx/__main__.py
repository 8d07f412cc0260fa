"""``python -m hvx``"""

from hvx.cli import main

main(prog_name="hvx")
