"""From a trained model to a measured W4A4 checkpoint, without data: `python examples/quickstart.py`."""

import vitdfq

# [start:synthesize]
teacher = vitdfq.load_teacher("zoo:deit")  # a small DeiT that comes with the package
images = vitdfq.synthesize(teacher, method="psaq", num_images=16, steps=20, seed=0)  # Tensor (16, 3, 28, 28)
# [end:synthesize]

# [start:quantize]
prepared = vitdfq.prepare(teacher)  # the same function, easier to quantize
student = vitdfq.quantize(prepared, bits="w4a4")  # a copy with quantizers in place
vitdfq.calibrate(student, prepared, images, effort="quick")  # in place
# [end:quantize]

# [start:measure]
scores = vitdfq.evaluate(student, teacher=teacher, dataset="zoo:fashion-mnist", num_images=500)
print(f"agreement {scores['agreement']:.1f} %, top-1 {scores['top1']:.1f} %")
vitdfq.save(student, "runs/first_student")
again = vitdfq.load("runs/first_student")  # bit-equal logits
# [end:measure]
assert (again(images) == student(images)).all()
