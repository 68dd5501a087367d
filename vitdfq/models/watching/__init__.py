"""What a model does, found by watching one pass of shapes; it knows no architecture.

watch           the calls of a pass, as a tree                                watch.py
counting        multiplications of a call                                     counting.py
Recorder, Tape  calls written down at two batch sizes, run at any             recorder.py, tape.py
open_watched    modules that multiply activations, with places for quantizers attention.py, places.py
make_plain      convolutions that compute their weight or padding             convolutions.py
segments        units                                                         chain.py
facts           attention over patches, norms and GELUs with their readers    facts.py
batch_norms     BatchNorms beside one layer                                   batch_norms.py
"""
