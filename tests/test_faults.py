"""Messages in the formats that recipes answer with."""

from mmunify.faults import Fault, did_you_mean, unknown


def test_a_fault_says_where_it_is():
    assert str(Fault("model.adapters.image", "needs a name")) == "model.adapters.image: needs a name"
    assert str(Fault("", "is empty")) == "is empty"


def test_the_nearest_name_is_offered():
    assert did_you_mean("qfromer", ["mlp", "qformer"]) == "; did you mean 'qformer'?"
    assert did_you_mean("num_querys", ["num_queries"], quoted=False) == "; did you mean num_queries?"
    assert did_you_mean("zzz", ["mlp"]) == "."


def test_unknown_lists_what_is_known():
    expected = "no adapter named 'qfromer'; did you mean 'qformer'? Known: mlp, qformer"
    assert unknown("adapter", "qfromer", ["mlp", "qformer"]) == expected
    assert unknown("adapter", "x", []) == "no adapter named 'x'. Known: none"
