"""Preparing data sets: from what users have to COCO jsons, checked and split."""
