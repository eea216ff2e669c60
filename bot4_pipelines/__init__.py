"""Bot4's learning pipeline: candles in, checked and promoted regime models out. It never trades."""
