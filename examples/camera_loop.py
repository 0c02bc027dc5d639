"""Judge the frames of a camera, and save those that are NG.

    python examples/camera_loop.py my-model 0

It needs opencv-python-headless, which gives blue, green, red; faprompt takes red, green, blue.
"""

import sys

import numpy as np

import faprompt


def judge_frames(camera, detector):
    """Yield each frame in RGB with its result, until the camera gives none."""
    while True:
        arrived, bgr = camera.read()
        if not arrived:
            return
        rgb = np.ascontiguousarray(bgr[..., ::-1])
        yield rgb, detector.predict(rgb)


def main(model="small", number="0"):
    """Print a verdict for each frame of a camera."""
    import cv2

    detector, camera = faprompt.load_detector(model), cv2.VideoCapture(int(number))
    try:
        for frame, (rgb, result) in enumerate(judge_frames(camera, detector)):
            print(frame, result.verdict, f"{result.score:.3f}", flush=True)
            if result.verdict == "NG":
                cv2.imwrite(f"ng-{frame}.png", result.overlay(rgb)[..., ::-1])  # back to BGR
    finally:
        camera.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
