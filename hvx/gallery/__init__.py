"""A run as a static web page: its pictures, its data as scripts, and the page that shows them."""
