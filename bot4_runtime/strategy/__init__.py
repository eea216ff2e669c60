"""From what the market does to what we propose. A strategy proposes; others decide."""
