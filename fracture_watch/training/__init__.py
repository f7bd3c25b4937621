"""Labelled radiographs -> weights and a card. Needs the ``train`` extra."""
