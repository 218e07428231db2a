"""What validation chooses, against loops over everything tried, and when nothing earns itself."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, log_softmax
from scipy.stats import sem
from sklearn.metrics import f1_score
from test_lrsl_combiner import telling

from probeline.lrsl.choice import choose, forms_of, thresholds_tried
from probeline.lrsl.combiner import CombinerOptions
from probeline.lrsl.hardness import certainty
from probeline.lrsl.rerank import Form, rerank
from probeline.lrsl.trial import Validation, hard_offset, moved_by
from probeline.probe.standard_error import difference_error

INFINITE = float("inf")


def validation(seed=0, n=400, multilabel=False, metric=None, **more) -> Validation:
    logits, similarity, y = telling(seed, n, multilabel)
    sure = certainty(logits, "variance", 3)
    metric = metric or ("micro-f1" if multilabel else "accuracy")
    return Validation(logits, similarity, y, sure, metric, multilabel, **more)


FORMS = forms_of(["prob", "mix", "paper-logits", "mlp"], [0.5, 1, 2], [0.3, 0.6], 3)


def test_the_grid_of_forms():
    assert len(FORMS) == 3 + 6 + 3
    assert forms_of(["paper-banking77"], [1, 2], [0.3], None) == [Form("paper-banking77")]
    assert forms_of(["mlp"], [1], [0.3], None) == []


def test_thresholds_tried_are_quantiles():
    assert thresholds_tried(np.arange(101.0), 4) == [25, 50, 75, INFINITE]
    assert thresholds_tried(np.ones(9)) == [INFINITE]


def test_new_texts_that_are_more_certain_belong_to_everything():
    given = validation()
    choice = choose(given, [Form("prob")], thresholds_tried(given.certainty, 1), fixed=True)
    assert choice.reranking.hard(given.certainty.max() + np.arange(3)).all()


def test_counts_by_a_loop():
    given = validation()
    threshold = float(np.quantile(given.certainty, 0.4))
    choice = choose(given, FORMS, [threshold])
    assert choice.before == choice.trials[0].score == (given.logits.argmax(1) == given.y).mean()
    assert len(choice.trials) == 1 + len(FORMS)
    for form, trial in zip(FORMS, choice.trials[1:], strict=True):
        after = rerank(given.logits, given.similarity, form).argmax(axis=1)
        hard = fixed = broken = changed = right = 0
        for row, true in enumerate(given.y):
            old = new = int(given.logits[row].argmax())
            if given.certainty[row] <= threshold:
                hard, new = hard + 1, int(after[row])
            fixed += old != true and new == true
            broken += old == true and new != true
            changed += old != new
            right += new == true
        assert (trial.hard, trial.fixed, trial.broken, trial.changed) == (
            hard,
            fixed,
            broken,
            changed,
        )
        assert trial.score == pytest.approx(right / len(given.y))
        # Paired: a fixed text counts 1, a broken one -1, all others 0.
        pairs = np.array([1] * fixed + [-1] * broken + [0] * (len(given.y) - fixed - broken))
        error = np.sqrt(np.square(pairs - pairs.mean()).sum()) / len(pairs)
        assert trial.error == pytest.approx(error)


def test_what_helps_is_chosen_and_is_what_new_texts_get():
    given = validation()
    choice = choose(given, FORMS, thresholds_tried(given.certainty, 5))
    assert choice.trial.score > choice.before + 0.1
    earned = [
        trial
        for trial in choice.trials[1:]
        if trial.gain > 2 * trial.gain_error and trial.score >= choice.before - trial.error
    ]
    assert choice.trial.log_loss == min(trial.log_loss for trial in earned)
    hard = choice.reranking.hard(given.certainty)
    assert hard.sum() == choice.trial.hard
    after = choice.reranking.apply(given.logits, hard, given.similarity[hard])
    assert (after.argmax(axis=1) == given.y).mean() == pytest.approx(choice.trial.score)
    assert after[~hard].tobytes() == given.logits[~hard].tobytes()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "multilabel, metric, n",
    [(False, None, 400), (True, "micro-f1", 80), (True, "accuracy", 80)],
)
@pytest.mark.parametrize("constant", [False, True])
def test_similarities_that_say_nothing_change_nothing(seed, multilabel, metric, n, constant):
    given = validation(seed, n, multilabel, metric)
    noise = np.random.default_rng(9 + seed).uniform(0.1, 0.9, given.similarity.shape)
    similarity = np.full_like(noise, 0.6) if constant else noise
    given = replace(given, similarity=similarity.astype(np.float32))
    choice = choose(given, FORMS, [INFINITE])
    assert choice.trial is choice.trials[0]
    assert not choice.reranking.hard(given.certainty).any()
    none = np.zeros(n, dtype=bool)
    kept = choice.reranking.apply(given.logits, none, given.similarity[none])
    assert kept.tobytes() == given.logits.tobytes()


@pytest.mark.parametrize("candidates", [None, 3])
def test_a_threshold_alone_is_tried_and_not_chosen(candidates):
    """Logits are all too low, which no similarity is needed to mend."""
    given = validation(1, 150, multilabel=True)
    shifted = given.logits - np.float32(1.5)
    given = replace(given, logits=shifted, similarity=np.full_like(shifted, 0.6))
    choice = choose(given, [Form("prob", 2.0, candidates=candidates)], [INFINITE])
    nothing, alone, form = choice.trials
    assert (nothing.name, alone.name, form.name) == ("nothing", "threshold", "prob")
    assert (alone.power, alone.candidates) == (None, candidates)
    ranks = np.argsort(np.argsort(-shifted, axis=1), axis=1)
    among = ranks < (candidates or 7)

    def scored(at: float) -> float:
        return f1_score(given.y, np.where(among, shifted > at, shifted > 0), average="micro")

    assert alone.score == pytest.approx(scored(alone.offset))
    assert alone.score >= max(scored(at) for at in np.linspace(-6, 3, 50)) - 0.01
    assert form.score == pytest.approx(alone.score, abs=1e-6)
    assert alone.score > nothing.score + 0.01
    assert choice.trial is nothing


def test_what_helps_several_labels_is_what_new_texts_get():
    given = validation(multilabel=True, temperature=1.5)
    negative = given.similarity.copy()
    negative[::4] = -1
    given = replace(given, similarity=negative)
    threshold = float(np.quantile(given.certainty, 0.6))
    choice = choose(given, FORMS, [threshold])
    assert choice.trial.score > max(choice.trials[0].score, choice.trials[1].score)
    hard = choice.reranking.hard(given.certainty)
    after = choice.reranking.apply(given.logits, hard, given.similarity[hard])
    assert f1_score(given.y, after > 0, average="micro") == pytest.approx(choice.trial.score)
    assert after[::4].tobytes() == given.logits[::4].tobytes()


def test_log_loss_of_several_labels_at_its_best_scale():
    given = validation(4, 120, multilabel=True, temperature=1.3)
    hard = given.certainty <= np.median(given.certainty)
    form = Form("prob", 2.0, candidates=3)
    trial = choose(given, [form], [float(np.median(given.certainty))]).trials[-1]
    ranks = np.argsort(np.argsort(-given.logits, axis=1), axis=1)
    moved = (ranks < 3) & (np.where(ranks < 3, given.similarity, 0).max(axis=1) > 0)[:, None]
    scores = rerank(given.logits, given.similarity, form, True, 1.3).astype(float)
    losses = []
    for slope, off in itertools.product(np.linspace(0.2, 3, 71), np.linspace(-4, 6, 101)):
        p = expit(np.where(moved, slope * scores + off, scores))[hard]
        losses.append(-np.log(np.where(given.y[hard], p, 1 - p)).mean(axis=1).mean())
    assert trial.log_loss == pytest.approx(min(losses), rel=1e-3)


def test_fixed_takes_the_form_and_not_the_threshold_alone():
    given = validation(multilabel=True)
    choice = choose(given, FORMS, [INFINITE], fixed=True)
    assert choice.reranking.form == FORMS[0]
    assert choice.trial is choice.trials[2]


def test_a_score_alone_does_not_earn_itself():
    """One text is fixed by a hair, the truth of the other gets far less likely."""
    logits = np.array([[1.0, 0.9, 0.0], [9.0, 0.0, 0.0]], dtype=np.float32)
    similarity = np.array([[0.75, 0.9, 0.7], [0.0007, 0.9, 0.9]], dtype=np.float32)
    given = Validation(logits, similarity, np.array([1, 0]), np.zeros(2), "accuracy")
    choice = choose(given, [Form("prob")], [INFINITE])
    assert (choice.trials[1].fixed, choice.trials[1].broken) == (1, 0)
    assert choice.trial is choice.trials[0]


def test_to_be_surer_does_not_earn_itself():
    """The right label wins by more, which larger logits would do as well."""
    logits = np.eye(3, dtype=np.float32)
    given = Validation(logits, np.eye(3) + 0.5, np.arange(3), np.zeros(3), "accuracy")
    choice = choose(given, [Form("prob")], [INFINITE])
    assert choice.trials[1].score == choice.before
    assert choice.trial is choice.trials[0]


def test_a_lower_log_loss_earns_itself_without_a_score():
    """No answer of validation changes, but every text's true label gets likelier than others."""
    rng = np.random.default_rng(5)
    y = rng.integers(4, size=300)
    logits = (2.5 * np.eye(4)[y] + rng.normal(size=(300, 4))).astype(np.float32)
    # Little enough that no answer changes.
    similarity = 0.5 + 0.002 * np.eye(4)[y] + rng.uniform(0, 0.0002, logits.shape)
    given = Validation(logits, similarity, y, np.zeros(len(y)), "accuracy")
    choice = choose(given, [Form("prob", 0.5)], [INFINITE])
    assert choice.trials[1].score == choice.before
    assert choice.trial is choice.trials[1]


def test_log_loss_of_one_label_at_its_best_scale():
    given = validation(3, 150)
    hard = given.certainty <= np.median(given.certainty)
    trial = choose(given, [Form("prob", 2.0)], [float(np.median(given.certainty))]).trials[-1]
    found = []
    for logits in (given.logits, rerank(given.logits, given.similarity, Form("prob", 2.0))):
        part = logits[hard].astype(float)
        part = np.maximum(part, part.max(axis=1, keepdims=True) + np.log(1e-15))
        scaled = [part / T for T in np.geomspace(0.01, 100, 4001)]
        losses = [-log_softmax(z, axis=1)[np.arange(hard.sum()), given.y[hard]] for z in scaled]
        found.append(min(losses, key=np.mean))
    assert trial.log_loss == pytest.approx(found[1].mean(), rel=1e-4)
    assert trial.gain == pytest.approx((found[0] - found[1]).mean(), rel=1e-3)
    assert trial.gain_error == pytest.approx(sem(found[0] - found[1]), rel=1e-3)


@pytest.mark.parametrize("thresholds", [[None], []])
def test_without_hard_texts_nothing_is_done(thresholds):
    for fixed in (False, True):
        choice = choose(validation(), FORMS, thresholds, [CombinerOptions()], fixed=fixed)
        assert choice.trial is choice.trials[0]
        assert choice.reranking.form.is_nothing


def test_fixed_takes_the_first_without_asking():
    given = validation()
    given = replace(given, similarity=1 - given.similarity)
    choice = choose(given, FORMS, [INFINITE, 0.1], fixed=True)
    assert choice.reranking.form == FORMS[0]
    assert choice.reranking.threshold == INFINITE
    assert choice.trial.score < choice.before
    assert len(choice.trials) == 2


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_a_combiner_can_be_chosen(multilabel, temperature):
    given = validation(multilabel=multilabel, temperature=temperature)
    choice = choose(given, [], [INFINITE], [CombinerOptions(3)])
    assert choice.trial.name == "mlp"
    assert choice.reranking.combiner.options.temperature == temperature
    hard = choice.reranking.hard(given.certainty)
    after = choice.reranking.apply(given.logits, hard, given.similarity)
    # Fitted on these very texts, where the trial's score is out of fold.
    assert given.score(after) > choice.before


def test_threshold_of_several_labels_by_a_loop():
    given = validation(3, 150, multilabel=True, metric="macro-f1")
    hard = given.certainty <= np.median(given.certainty)
    new = given.logits.copy()
    new[hard] = rerank(given.logits, given.similarity, Form("prob", 2.0), True)[hard]
    usable = hard & (given.similarity.max(axis=1) > 0)
    offset = hard_offset(given, new, moved_by(given, Form("prob", 2.0), hard))

    def scored(at: float) -> float:
        predicted = np.where(usable[:, None], new > at, given.logits > 0)
        return f1_score(given.y, predicted, average="macro", zero_division=0)

    everywhere = max(scored(at) for at in np.unique(new[hard])[::5])
    assert scored(offset) >= everywhere - 0.01
    assert scored(offset) > scored(0.0)
    choice = choose(given, [Form("prob", 2.0)], [float(np.median(given.certainty))])
    assert choice.trials[2].score == pytest.approx(scored(offset))
    assert choice.trials[2].offset == offset


def test_a_threshold_that_was_taken_off_is_no_matter():
    """Where every label is reranked, its own threshold takes the place of it."""
    plain = validation(3, 150, multilabel=True, temperature=1.3)
    plain = replace(plain, similarity=np.abs(plain.similarity) + np.float32(0.01))
    at = -0.75
    given = replace(plain, logits=plain.logits - np.float32(at), taken_off=(at,) * 7)
    forms = forms_of(["prob", "mix", "paper-logits"], [1, 2], [0.3], None)
    one, two = (choose(each, forms, [INFINITE]) for each in (plain, given))
    assert len(one.trials) == 2 + len(forms)
    for first, second in zip(one.trials[1:], two.trials[1:], strict=True):
        assert second.score == pytest.approx(first.score, abs=1e-3)
        assert second.log_loss == pytest.approx(first.log_loss, rel=1e-3)
        assert second.offset == pytest.approx(first.offset - at, abs=1e-3)
    everything = np.ones(150, dtype=bool)
    # A combiner's folds hang on which texts are wrong, and so its offset on the threshold.
    for ways, combiners in ((forms, []), ([], [CombinerOptions()])):
        one, two = (
            choose(each, ways, [INFINITE], combiners, fixed=True).reranking
            for each in (plain, given)
        )
        one, two = (
            each.apply(which.logits, everything, which.similarity) + np.float32(each.offset)
            for each, which in ((one, plain), (two, given))
        )
        np.testing.assert_allclose(one, two + at, atol=2e-3)


def test_a_single_label_has_no_threshold():
    given = validation()
    assert hard_offset(given, given.logits, given.certainty < INFINITE) == 0


@pytest.mark.parametrize("metric", ["macro-f1", "matthews", "roc-auc"])
def test_other_metrics(metric):
    given = validation(metric=metric)
    choice = choose(given, FORMS, [INFINITE])
    assert choice.trial.score > choice.before
    assert choice.trial.error > 0


def test_error_of_a_difference_is_that_of_the_bootstrap():
    given = validation(1)
    after = rerank(given.logits, given.similarity, Form("prob"))
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(1500):
        rows_ = rng.integers(0, 400, 400)
        y = given.y[rows_]
        pair = [f1_score(y, z[rows_].argmax(1), average="macro") for z in (after, given.logits)]
        differences.append(pair[0] - pair[1])
    found = difference_error("macro-f1", given.y, after, given.logits, 7)
    assert found == pytest.approx(np.std(differences), rel=0.1)
    assert difference_error("macro-f1", given.y, after, after, 7) == 0


def test_the_order_of_labels_says_nothing():
    given = validation(2)
    order = np.random.default_rng(0).permutation(7)
    shuffled = replace(
        given,
        logits=given.logits[:, order],
        similarity=given.similarity[:, order],
        y=np.argsort(order)[given.y],
    )
    one, two = (choose(each, FORMS, [INFINITE]) for each in (given, shuffled))
    assert one.reranking.form == two.reranking.form
    assert one.trial.score == two.trial.score
