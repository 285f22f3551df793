"""Take a device's model away as ONNX, in float and in 8 bits, and let it answer where neither torch nor fedprune is.

python export.py [key=value ...]
"""

import sys

import numpy as np
import onnxruntime

import fedprune as fp

run = fp.run(*sys.argv[1:], oracle=False, save_models=True)
exported = run.export(0, "onnx", int8=True, output="exported")
for name, facts in exported.card["files"].items():
    print(name, facts)

session = onnxruntime.InferenceSession(exported.files[1], providers=["CPUExecutionProvider"])
side = exported.card["preprocess"]["image_size"]
grey = np.zeros((1, 3, side, side), np.float32)
(logits,) = session.run(None, {"pixels": grey})
print("a grey image is taken for", exported.card["class_names"][int(logits.argmax())])
