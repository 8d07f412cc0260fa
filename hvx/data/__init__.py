"""What goes in: questions, images, words, and the built-in split of drawn scenes."""
