import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from overproof.errors import DataError
from overproof.students.ngrams import NgramTable, Shape, grams, learn
from overproof.students.normalise import normalise

SHAPES = [("word", 1, 2), ("word", 2, 3), ("char_wb", 2, 5), ("char_wb", 1, 3), ("char_wb", 4, 4)]
PATTERN = r"(?u)\b\w+\b"


def theirs(analyzer, low, high, **options):
    return TfidfVectorizer(
        analyzer=analyzer, ngram_range=(low, high), token_pattern=PATTERN, sublinear_tf=True, **options
    )


@pytest.mark.parametrize(("analyzer", "low", "high"), SHAPES)
@given(text=st.text(alphabet=st.sampled_from("aB é1_-'😡ß中ñ.\u0301"), max_size=25) | st.text(max_size=25))
def test_grams_are_scikit_learns(analyzer, low, high, text):
    """Every n-gram of any normalised text comes out as scikit-learn's analyzer gives it, in the same order."""
    text = normalise(text)
    assert grams(text.lower(), analyzer, low, high) == theirs(analyzer, low, high).build_analyzer()(text)


@pytest.mark.parametrize("min_df", [1, 2])
def test_rows_are_scikit_learns_tfidf(messages, min_df):
    """Terms, their order and every TF-IDF value equal scikit-learn's on four languages with emoji."""
    texts = [normalise(text) for _, _, text in messages]
    table = learn(texts, [Shape(analyzer="char_wb", low=2, high=5)], min_df=min_df, max_terms=10**6)
    reference = theirs("char_wb", 2, 5, min_df=min_df)
    expected = reference.fit_transform(texts).toarray()
    assert list(table.terms[0]) == list(reference.get_feature_names_out())
    np.testing.assert_allclose(table.matrix(texts).toarray(), expected, atol=1e-12)


def test_the_most_frequent_terms_are_kept():
    """A bound on the number of terms drops the rarest, ties by spelling, so that two fits agree."""
    table = learn(["b a", "b c", "b a d"], [Shape(analyzer="word", low=1, high=1)], min_df=1, max_terms=3)
    assert table.terms == (("a", "b", "c"),)


def test_a_block_is_never_emptied_by_min_df():
    """A few texts without a common word still get a vocabulary."""
    table = learn(["one", "two"], [Shape(analyzer="word", low=1, high=1)], min_df=2, max_terms=9)
    assert table.terms == (("one", "two"),)


def test_unknown_text_is_an_empty_row():
    """A text without a known term has no features, and no NaN."""
    table = learn(["one", "two"], [Shape(analyzer="word", low=1, high=1)], min_df=1, max_terms=9)
    row = table.encode("drei")
    assert len(row.indices) == len(row.values) == 0


def test_vocabulary_survives_the_file(tmp_path):
    """What is saved loads as the same table, and a table for other columns is refused."""
    table = learn(["ab c", "ab ñ😡"], [Shape(analyzer="char_wb", low=1, high=2)], min_df=1, max_terms=99)
    table.save(tmp_path)
    again = NgramTable.load(tmp_path, table.idf)
    assert again.terms == table.terms
    assert again.encode("ab ñ").values.tolist() == table.encode("ab ñ").values.tolist()
    with pytest.raises(DataError, match="columns"):
        NgramTable.load(tmp_path, table.idf[1:])
