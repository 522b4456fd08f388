"""The parts of the deck builder. scripts/deck.py is the only way in."""
