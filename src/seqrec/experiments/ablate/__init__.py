"""What each part of a run is worth: switched off one at a time, trained again, tested against the whole."""
