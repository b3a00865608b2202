from mmunify.layers.numbers import NumbersPreprocess


def test_numbers_of_one_shape_are_plain_data():
    preprocess = NumbersPreprocess(kind="fmri", shape=(11,))
    assert (preprocess.kind, preprocess.shape) == ("fmri", (11,))
    assert preprocess == NumbersPreprocess(kind="fmri", shape=(11,))
