"""Programs to read, run and copy from. Each stands alone; the tests run every one of them."""
