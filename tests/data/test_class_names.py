"""Classes of a set are matched to the model's by name where both have names, and by order where they have none."""

import re

import pytest
from timm.data import ImageNetInfo

from vitdfq.common.errors import RecipeError
from vitdfq.data.class_names import Classes, class_numbers, only_numbers

ANIMALS = ("cat", "ant", "bee")
DESCRIBED = {"n01440764": "the tench", "n01443537": "the goldfish"}


@pytest.mark.parametrize(
    ("names", "known", "numbers"),
    [
        (["ant", "bee", "cat"], ANIMALS, [1, 2, 0]),
        (["Ant", "BEE", "c-at "], ANIMALS, [1, 2, 0]),  # spelled otherwise
        (["bee", "cat"], ANIMALS, [2, 0]),  # some of the classes
        (["ant", "bee", "cat"], None, [0, 1, 2]),
        (["0", "1", "2"], ANIMALS, [0, 1, 2]),  # names that only number
        (["class_1", "class_2", "class_3"], ANIMALS, [0, 1, 2]),
        (["a", "b", "c"], ANIMALS, [0, 1, 2]),
        (["ant", "bee", "cat"], ("LABEL_0", "LABEL_1", "LABEL_2"), [0, 1, 2]),
        (["class_1", "class_2", "class_10"], ("class_1", "class_10", "class_2"), [0, 2, 1]),  # a model trained in another order
        (["crane", "ant", "crane"], ("crane", "ant", "crane"), [0, 1, 2]),  # ImageNet has two cranes
        (["0_bee", "1_cat", "2_ant"], ANIMALS, [2, 0, 1]),  # numbers of another order
        (["c", "C++"], ("C++", "c"), [1, 0]),  # the same without signs
        (["n01443537", "n01440764"], ("tench, Tinca tinca", "goldfish, Carassius auratus"), [1, 0]),
        (["tench", "goldfish"], ("n01443537", "n01440764"), [1, 0]),
        (["n01440764", "n01443537"], ("Schleie", "Goldfisch"), [0, 1]),  # they do not compare: no false alarm
    ],
)
def test_numbers(names, known, numbers):
    assert class_numbers("x", names, Classes(len(known or names), known)) == numbers


@pytest.mark.parametrize(
    ("names", "known", "message"),
    [
        (["ant", "bee", "fly"], ANIMALS, "x has other classes than the model: 'fly' is none of the model's, 'cat' none of its"),
        (["ant", "bee"], (*ANIMALS, "fly", "cow")[2:], "x has 2 classes, the model has 3"),
        (["ant", "Ant", "bee"], ANIMALS, "'cat' none of its|have the same name"),
    ],
)
def test_other_classes_are_refused(names, known, message):
    with pytest.raises(RecipeError, match=message):
        class_numbers("x", names, Classes(3, known))


def test_the_order_counts_if_names_are_not_to_be_matched():
    assert class_numbers("x", ["ant", "bee", "fly"], Classes(3, ANIMALS), match_names=False) == [0, 1, 2]
    with pytest.raises(RecipeError, match="has 2 classes"):
        class_numbers("x", ["ant", "bee"], Classes(3, ANIMALS), match_names=False)


def test_imagenet_in_words_of_another_source_keeps_its_order():
    wnids, words = ImageNetInfo().label_names(), ImageNetInfo().label_descriptions()
    assert class_numbers("x", words, Classes(1000)) == list(range(1000))
    assert class_numbers("x", words, Classes(1000, tuple(wnids))) == list(range(1000))
    other = [f"{word} (photo)" if number % 20 == 0 else word for number, word in enumerate(words)]
    assert class_numbers("x", other, Classes(1000, tuple(words))) == list(range(1000))
    assert class_numbers("x", wnids[::-1], Classes(1000)) == list(range(1000))[::-1]


def test_names_are_read_as_timm_stores_them():
    class Model:
        num_classes = 2

    for names in (["a", "b"], ("a", "b"), {"1": "b", "0": "a"}, {0: "a", 1: "b"}):
        Model.pretrained_cfg = {"label_names": names}
        assert Classes.of(Model()).names == ("a", "b")
    for names in (None, ["a"], "ab"):
        Model.pretrained_cfg = {"label_names": names}
        assert Classes.of(Model()).names is None
    Model.pretrained_cfg = {"label_names": list(DESCRIBED), "label_descriptions": DESCRIBED}
    assert class_numbers("x", ["The Goldfish", "The Tench"], Classes.of(Model())) == [1, 0]


def test_wordnet_ids_do_not_only_number():
    assert not only_numbers(["n01440764", "n01443537"]) and only_numbers(["01", "02"]) and not only_numbers(["a1", "b2"])
    assert re.fullmatch(r"n\d{8}", ImageNetInfo().label_names()[0])
