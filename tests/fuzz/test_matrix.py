"""The matrix in docs/FSCK.md has a row for every class of damage that the fuzz knows."""

from tools import fsck_matrix


def test_the_matrix_knows_every_class_of_damage() -> None:
    assert fsck_matrix.main(["--check"]) == 0
