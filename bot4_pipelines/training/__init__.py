"""The learning: from candles to models, gates and evidence. No Dagster here."""
