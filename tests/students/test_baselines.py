import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB

from overproof.data import Request
from overproof.measure.calibration import probabilities
from overproof.students.baselines import Majority, NaiveBayes, Nearest
from overproof.students.normalise import text_of

ASKED = [
    Request(id=str(i), fields={"text": t})
    for i, t in enumerate(["where is my package", "gracias 🎉", "Passwort gesperrt", "", "qwertz"])
]


def fitted(cls, train_set, folder, **options):
    student = cls(labels=train_set.labels, **options)
    student.fit(train_set, workdir=folder)
    return student


def test_majority_says_the_weighted_commonest_label(train_set, tmp_path):
    """Every request gets the label with the most weight, with the label shares as probabilities."""
    got = probabilities(fitted(Majority, train_set, tmp_path).logits(ASKED), 1.0)
    total = sum(e.weight for e in train_set.examples)
    shares = [sum(e.weight for e in train_set.examples if e.target == label) / total for label in train_set.labels]
    np.testing.assert_allclose(got, np.tile(shares, (len(ASKED), 1)), atol=1e-6)


def test_naive_bayes_is_scikit_learns(train_set, tmp_path):
    """Probabilities equal scikit-learn's MultinomialNB on the same counts and weights."""
    texts = [text_of(e.request) for e in train_set.examples]
    counter = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    reference = MultinomialNB(alpha=0.1)
    weight = np.array([e.weight for e in train_set.examples])
    reference.fit(
        counter.fit_transform(texts), [e.target for e in train_set.examples], sample_weight=weight / weight.mean()
    )
    expected = reference.predict_proba(counter.transform([text_of(r) for r in ASKED]))
    got = probabilities(fitted(NaiveBayes, train_set, tmp_path).logits(ASKED), 1.0)
    np.testing.assert_allclose(got[:, :4], expected, atol=1e-5)


def test_nearest_votes_with_the_most_similar_rows(train_set, tmp_path):
    """The vote is the similarity-weighted labels of the k rows with the largest cosine, brute force."""
    student = fitted(Nearest, train_set, tmp_path, k=3, smoothing=1e-6)
    texts = [text_of(e.request) for e in train_set.examples]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit(texts)
    similar = (vectors.transform([text_of(r) for r in ASKED[:3]]) @ vectors.transform(texts).T).toarray()
    got = probabilities(student.logits(ASKED[:3]), 1.0)
    for row, found in zip(similar, got, strict=True):
        nearest = np.argsort(-row, kind="stable")[:3]
        votes = dict.fromkeys(train_set.labels, 0.0)
        for i in nearest:
            votes[train_set.examples[i].target] += row[i] * train_set.examples[i].weight
        total = sum(votes.values())
        np.testing.assert_allclose(found, [votes[label] / total for label in train_set.labels], atol=1e-5)


def test_nearest_without_a_neighbour_falls_back_to_shares(train_set, tmp_path):
    """A text that shares no n-gram with any row gets the label shares, not a made-up certainty."""
    student = fitted(Nearest, train_set, tmp_path)
    got = probabilities(student.logits([Request(id="", fields={"text": "中文"})]), 1.0)[0]
    assert got.max() < 0.5
    assert got[-1] < 1e-9


@pytest.mark.parametrize("cls", [Nearest, NaiveBayes])
def test_known_rows_come_back(cls, train_set, tmp_path):
    """A training row's own text gets its own label nearly always: the columns are in label order."""
    student = fitted(cls, train_set, tmp_path)
    best = student.logits([e.request for e in train_set.examples]).argmax(axis=1)
    hits = [train_set.labels[i] == e.target for i, e in zip(best, train_set.examples, strict=True)]
    assert np.mean(hits) > 0.9
