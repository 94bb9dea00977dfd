"""Give nearly identical images one patient, for data sets whose names tell no patients apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model_build.data.images import ImageSet
from model_build.data.similarity import near_identical_pairs, thumbnail


def group_near_copies(images: ImageSet) -> ImageSet:
    """Join the patients of nearly identical images, so that no split can part them.

    Parameters
    ----------
    images : ImageSet

    Returns
    -------
    ImageSet
        The same images; of patients that are joined, over however many steps, the first one's name stands for all.
    """
    thumbnails = np.stack([thumbnail(images.pixels[index][:, :, 0]) for index in range(len(images.pixels))])
    leader = {entry.patient: entry.patient for entry in images.files}

    def lead(patient: str) -> str:
        while leader[patient] != patient:
            patient = leader[patient]
        return patient

    for first, second in near_identical_pairs(thumbnails)[0].tolist():
        one, other = sorted((lead(images.files[first].patient), lead(images.files[second].patient)))
        leader[other] = one
    return replace(images, files=[replace(entry, patient=lead(entry.patient)) for entry in images.files])
