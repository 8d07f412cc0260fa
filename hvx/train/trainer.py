"""``hvx train``: caches the frozen backbone's features, trains the head; checkpoints, metrics, a plot."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hvx.config import Config, SplitConfig
from hvx.data.questions import Question, read_questions
from hvx.data.tokenize import Vocabulary, tokenizer
from hvx.device import standard_mode
from hvx.errors import HvxError
from hvx.explain.guided import guided
from hvx.importers.skipthoughts import fill_encoder, load_pretrained
from hvx.models.backbone import Backbone, build_backbone, empty_backbone
from hvx.models.base import HadamardHead, Head
from hvx.models.checkpoint import VQAModel, save_checkpoint
from hvx.models.encoder import QuestionEncoder
from hvx.models.networks import NETWORKS, new_head
from hvx.progress import Log, no_log
from hvx.train.backbone_pretraining import train_backbone
from hvx.train.dataset import Examples, frequent_answers
from hvx.train.evaluate import Evaluator
from hvx.train.features import CacheJob, FeatureCache, cached_features
from hvx.train.head_trainer import HeadTrainer
from hvx.train.loop import TrainingLoop, best_of
from hvx.train.resume_state import Metrics, Progress, TrainingFiles, identity, read_state, save_state

_SMALLEST_FEATURES = 1e-6
"""Lower limit for the features' scale, so that zero features are not divided by zero."""

State = tuple[dict[str, Tensor], Progress]


@standard_mode()
def train_model(config: Config, device: torch.device, log: Log = no_log, restart: bool = False) -> Metrics:
    """Train the model of a config, or resume its training if it was killed.

    ``TrainingFiles`` names the files next to the checkpoint. Errors that can be detected early are raised
    before the long work begins.

    Args:
        config: the full config.
        device: of the networks.
        log: receives messages for the user, a line at a time.
        restart: discard an earlier training and start again.

    Returns:
        The last epoch's metrics, the best epoch, the number of questions, and the seconds of each stage.

    Raises:
        HvxError: a file is missing or wrong, or is of another training.
        BadImage: an image of the splits cannot be read.
    """
    training = _Training(config, device, log)
    state = training.earlier(restart)
    if state and state[1].finished is not None:
        log(f"{training.files.checkpoint}: was trained before; --restart trains it again")
        return state[1].finished
    return training.run(state)


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = round(now - self._last, 1), now


@dataclass(frozen=True)
class _TrainingData:
    """The splits' questions by name, the jobs for their images' features, the words, the answers, the rows of
    the embedding table for each question's text, and counts for the metrics."""

    questions: dict[str, list[Question]]
    jobs: list[CacheJob]
    vocabulary: Vocabulary
    answers: list[str]
    rows: dict[str, list[int]]
    notes: dict[str, int]


class _Training:
    """The stages of a config's training."""

    def __init__(self, config: Config, device: torch.device, log: Log) -> None:
        self.config, self.device, self.log = config, device, log
        self.files = TrainingFiles(config.path(config.checkpoint))
        self.splits = {"train": config.split(config.train.split)}
        if config.train.validation:
            self.splits["val"] = config.split(config.train.validation)
        self.identity = identity(config, self.splits)

    def earlier(self, restart: bool) -> State | None:
        """The state of an earlier, identical training, if there is one.

        Raises:
            HvxError: the state is of another training or damaged, or a checkpoint without a state of this
                training would be replaced.
        """
        checkpoint = self.files.checkpoint
        if restart:
            self._forget()
            return None
        state = read_state(self.files.state, self.identity)
        if state is None and checkpoint.exists():
            raise HvxError(
                f"{checkpoint}: exists, and no state of a training next to it; give another checkpoint, or "
                "replace it with --restart"
            )
        if state and state[1].finished is not None and not checkpoint.exists():
            raise HvxError(f"{checkpoint}: was trained, but is gone; --restart trains it again")
        return state

    def _forget(self) -> None:
        for path in (self.files.state, self.files.backbone):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise HvxError(f"{path}: cannot be deleted: {error.strerror}") from None

    def run(self, state: State | None) -> Metrics:
        """Train to the end, from ``state`` if it is given."""
        self._check_activations()
        clock = _Clock()
        data = self._read_data()
        progress = state[1] if state else Progress()
        encoder = None if state else self._encoder(data.vocabulary, progress)
        backbone = self._backbone().to(self.device)
        clock.stage("backbone")
        examples = self._examples(data, backbone)
        clock.stage("features")
        head = self._head(examples["train"].features, data, encoder)
        train, seed = self.config.train, self.config.seed
        trainer = HeadTrainer(head, examples["train"], data.answers, train, seed, progress)
        if state:
            trainer.restore(state[0], self.files.state)
            state[0].clear()  # as large as three models
            self.log(f"{self.files.state}: continued in epoch {progress.epoch}, after {progress.step} steps")
        notes = dict(data.notes)
        if progress.start_words is not None:
            notes |= {"words": len(data.vocabulary), "start_words": progress.start_words}

        def keep(path: Path, row: Metrics) -> None:
            scaled = copy.deepcopy(head)
            scaled.fold_feature_scale(examples["train"].scale)
            words, answers = data.vocabulary, data.answers
            save_checkpoint(path, VQAModel(self.config.model, backbone, scaled, words, answers, row | notes))

        evaluator = None
        if "val" in examples:
            evaluator = Evaluator(head, examples["val"], data.answers, self.splits["val"].accuracy)
        rows = TrainingLoop(trainer, evaluator, self.files, self.identity, keep, self.log).run()
        clock.stage("head")
        progress.finished = rows[-1] | best_of(rows) | notes | {"seconds": clock.seconds}
        save_state(self.files.state, self.identity, progress, {})
        self.files.backbone.unlink(missing_ok=True)
        return progress.finished

    def _read_data(self) -> _TrainingData:
        """Read the splits' files.

        Raises:
            HvxError: a file or an image is missing, or no answer can be used.
        """
        questions = self._questions()
        jobs = self._jobs(questions)
        config = self.config
        tokenize = tokenizer(config.model.encoder)
        texts = {question.question for split in questions.values() for question in split}
        tokens = {text: tokenize(text) for text in texts}  # the same text is asked about many images
        train = questions["train"]
        token_lists = (tokens[question.question] for question in train)
        vocabulary = Vocabulary.from_tokens(token_lists, config.train.min_word_count)
        rows = {text: vocabulary.rows(words) for text, words in tokens.items()}
        answers = frequent_answers(train, config.train.answers)
        questions["train"] = _answerable(train, answers, self.splits["train"])
        notes = {"questions": len(train), "questions_left_out": len(train) - len(questions["train"])}
        return _TrainingData(questions, jobs, vocabulary, answers, rows, notes)

    def _examples(self, data: _TrainingData, backbone: Backbone) -> dict[str, Examples]:
        """The splits' questions with the features of their images."""
        image, workers = self.config.model.image, self.config.train.workers
        caches = cached_features(backbone, image, data.jobs, self.log, workers)
        # Some networks' features are so large that tanh would be saturated from the first step on.
        scale = 1 / max(caches[0].root_mean_square, _SMALLEST_FEATURES)
        return {
            name: Examples(data.questions[name], cache, data.rows, self.device, scale)
            for name, cache in zip(self.splits, caches, strict=True)
        }

    def _questions(self) -> dict[str, list[Question]]:
        questions = {name: read_questions(split, self.log) for name, split in self.splits.items()}
        for name, split_questions in questions.items():
            if not split_questions[0].answers:
                raise HvxError(
                    f"{self.splits[name].questions}: training needs annotations; give the split's "
                    "'annotations'"
                )
        return questions

    def _jobs(self, questions: dict[str, list[Question]]) -> list[CacheJob]:
        checkpoint, folder = self.files.checkpoint, self.config.train.feature_cache
        caches = self.config.path(folder) if folder else checkpoint.parent
        jobs = []
        for name, split in self.splits.items():
            images = sorted({question.image for question in questions[name]})
            jobs.append(CacheJob(split, images, caches / f"{checkpoint.stem}.features.{name}.h5"))
            jobs[-1].check_images()
        return jobs

    def _encoder(self, vocabulary: Vocabulary, progress: Progress) -> QuestionEncoder | None:
        """The question encoder initialized from the start file; notes the number of known words."""
        if self.config.train.start is None:
            return None
        encoder = QuestionEncoder(self.config.model.encoder, len(vocabulary))
        start = load_pretrained(self.config.path(self.config.train.start))
        progress.start_words = fill_encoder(encoder, vocabulary, start)
        self.log(
            f"{start.source}: has {progress.start_words:,} of the vocabulary's {len(vocabulary):,} words"
        )
        return encoder

    def _check_activations(self) -> None:
        """Refuse, before anything is computed, a backbone that no run of the trained model could explain."""
        if issubclass(NETWORKS[self.config.model.network], HadamardHead):
            guided(empty_backbone(self.config.model.backbone).network)

    def _backbone(self) -> Backbone:
        config = self.config
        if not config.train.backbone_epochs:
            torch.manual_seed(config.seed)
            return build_backbone(config.model.backbone, config.path(Path()))
        stored = read_state(self.files.backbone, self.identity)
        if stored is None:
            backbone = train_backbone(config, self.splits["train"], self.device)
            save_state(self.files.backbone, self.identity, Progress(), backbone.state_dict())
            return backbone
        backbone = build_backbone(config.model.backbone.model_copy(update={"weights": None}))
        try:
            backbone.load_state_dict(stored[0])
        except RuntimeError:
            raise HvxError(
                f"{self.files.backbone}: damaged: not the tensors of {config.model.backbone.architecture}; "
                "delete it, or start again with --restart"
            ) from None
        return backbone

    def _head(self, features: FeatureCache, data: _TrainingData, encoder: QuestionEncoder | None) -> Head:
        torch.manual_seed(self.config.seed)
        sizes = features.channels, len(data.vocabulary), len(data.answers)
        head = new_head(self.config.model, *sizes, self.config.train.dropout)
        if encoder is not None:
            head.encoder.load_state_dict(encoder.state_dict())
        return head.to(self.device)


def _answerable(questions: list[Question], answers: list[str], split: SplitConfig) -> list[Question]:
    """The questions with a human answer that the classifier has."""
    known = set(answers)
    answerable = [question for question in questions if not known.isdisjoint(question.answers)]
    if not answerable:
        raise HvxError(
            f"{split.annotations or split.questions}: none of the 'answers' is one of the "
            f"{len(answers):,} most frequent 'multiple_choice_answer'"
        )
    return answerable
