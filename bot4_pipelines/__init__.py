"""Bot4's learning pipeline: candles in, checked regime models out. It never trades."""
