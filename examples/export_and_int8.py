"""A calibrated student as an ONNX file, and with int8 products: `python examples/export_and_int8.py`."""

import vitdfq

teacher = vitdfq.load_teacher("zoo:vit")
images = vitdfq.synthesize(teacher, method="dead_leaves", num_images=16)
prepared = vitdfq.prepare(teacher)
student = vitdfq.quantize(prepared, bits="w8a8")
vitdfq.calibrate(student, prepared, images)

# [start:export]
result = vitdfq.export(student, "student.onnx")  # compared with the student before the file is there
# [end:export]

# [start:integer]
integer = vitdfq.to_integer(student)  # a copy that multiplies int8
same = (integer(images).argmax(-1) == student(images).argmax(-1)).float().mean()
# [end:integer]
print(f"{result['file']}: {result['bytes']:,} bytes; in integers the same class on {100 * same:.0f} % of the images")
