"""Give nearly identical images one patient, for data sets whose names tell no patients apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from model_build.data.images import ImageSet
from model_build.data.similarity import near_identical_pairs


def group_near_copies(images: ImageSet) -> ImageSet:
    """Join the patients of nearly identical images, so that no split can part them.

    Parameters
    ----------
    images : ImageSet

    Returns
    -------
    ImageSet
        The same images under the joined patients' names.
    """
    patients = join_patients([entry.patient for entry in images.files], near_identical_pairs(images.thumbnails)[0].tolist())
    return replace(images, files=[replace(entry, patient=patient) for entry, patient in zip(images.files, patients, strict=True)])


def join_patients(patients: Sequence[str], pairs: Iterable[Sequence[int]]) -> list[str]:
    """The patient of every image once the patients of each pair of images are one.

    Parameters
    ----------
    patients : sequence of str
        Of each image.
    pairs : iterable of two int
        Indices of images.

    Returns
    -------
    list of str
        Of patients that are joined, over however many steps, the name that sorts first stands for all.
    """
    leader = {patient: patient for patient in patients}

    def lead(patient: str) -> str:
        while leader[patient] != patient:
            leader[patient] = leader[leader[patient]]
            patient = leader[patient]
        return patient

    for first, second in pairs:
        one, other = sorted((lead(patients[first]), lead(patients[second])))
        leader[other] = one
    return [lead(patient) for patient in patients]
