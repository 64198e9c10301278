"""Commands: what people call beside `serve`. Nothing that serves imports them."""
