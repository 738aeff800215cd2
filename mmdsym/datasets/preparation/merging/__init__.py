"""Bringing labels that were made or corrected elsewhere back into a prepared data set."""
