"""DICOM files made with pydicom, with a name in them that must not come out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

PATIENT = "Doe^Jane"


def dicom_file(
    values: np.ndarray, *, photometric: str = "MONOCHROME2", syntax: str = "", **elements: Any
) -> bytes:
    """Return the bytes of a DICOM file.

    Args:
        values: (H, W) or (H, W, 3), stored as they are; int8, uint8, int16, uint16, float32.
        photometric: Photometric Interpretation.
        syntax: transfer syntax UID; default: Explicit VR Little Endian, or that of
            `encapsulated` frames.
        elements: further elements by keyword, such as WindowCenter=40; None removes one. Two
            are special: `frames` are repeated values, and `encapsulated` a list of compressed
            frames.
    """
    pydicom = pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    frames, encapsulated = elements.pop("frames", 1), elements.pop("encapsulated", None)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PATIENT, PATIENT, "19700101"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = values.shape[2] if values.ndim == 3 else 1
    dataset.PhotometricInterpretation = photometric
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    bits = 8 * values.dtype.itemsize
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(values.dtype.kind == "i")
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    data = values.astype(values.dtype.newbyteorder(order)).tobytes() * frames
    if encapsulated is not None:
        data = encapsulate(encapsulated)
    if values.dtype.kind == "f":
        dataset.FloatPixelData = data
        del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    else:
        dataset.add_new("PixelData", "OB" if bits == 8 or encapsulated else "OW", data)
        dataset["PixelData"].is_undefined_length = encapsulated is not None
    for name, value in elements.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def lookup_table(entries: np.ndarray, first: int, bits: int) -> list[Any]:
    """Return a sequence with one table, for ModalityLUTSequence and VOILUTSequence."""
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    return [item]
