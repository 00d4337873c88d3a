import torch
from ignite.engine import Engine, Events

from common.data import PredictionDataset
from common.handlers import Progress


def run(data, max_epochs=1, start=None, evaluator=None, output=None, look_at=Events.EPOCH_COMPLETED, **options):
    """What the bar says at every event of a kind, of an engine that may begin after some epochs."""
    engine = Engine(lambda engine, batch: output)
    handler = Progress(evaluator=evaluator, **options)
    if start is not None:

        @engine.on(Events.STARTED)
        def resume(engine):
            engine.state.epoch, engine.state.iteration = start, start * engine.state.epoch_length

    handler.attach(engine)
    seen = []
    engine.add_event_handler(
        look_at, lambda: seen.append((handler.bar.n, handler.bar.total, handler.bar.initial, handler.bar.postfix))
    )
    engine.run(data, max_epochs=max_epochs)
    assert handler.bar is None  # closed
    return seen


def test_one_bar_runs_over_all_iterations_of_all_epochs(capsys):
    assert [bar[:2] for bar in run(range(5), 3)] == [(5, 15), (10, 15), (15, 15)]
    assert "15/15" in capsys.readouterr().err


def test_a_resumed_run_goes_on_where_it_stopped():
    assert [bar[:3] for bar in run(range(5), 4, start=2)] == [(15, 20, 10), (20, 20, 10)]


def test_a_run_of_unknown_length_counts_without_a_total(capsys):
    assert [bar[:2] for bar in run(iter([1, 2, 3]), description="prediction")] == [(3, None)]
    assert "prediction: 3image" in capsys.readouterr().err


def test_a_prediction_counts_all_its_images_from_those_that_are_done(capsys):
    data = PredictionDataset(
        [{"image": str(i)} for i in range(10)], transform=lambda item: {"value": 1 / int(item["image"])}
    )
    data.pending = [{"image": name} for name in "305601"]  # four are done; the second and the last but one fail
    seen = run(data, look_at=Events.ITERATION_COMPLETED, dataset=data)
    assert [bar[:3] for bar in seen] == [(5, 10, 4), (7, 10, 4), (8, 10, 4), (10, 10, 4)]
    data.pending = [{"image": "0"}]
    run(data, dataset=data)
    assert "10/10" in capsys.readouterr().err


def test_a_finished_run_has_no_bar():
    assert run(range(5), 2, start=2) == []


def test_a_second_run_of_an_evaluator_has_a_bar_of_its_own():
    engine = Engine(lambda engine, batch: None)
    handler = Progress("evaluation")
    handler.attach(engine)
    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append((handler.bar.n, handler.bar.total)))
    for _ in range(2):
        engine.run(range(4), max_epochs=1)
    assert seen == [(4, 4), (4, 4)]


def evaluation(value, best, epoch):
    """An evaluator as MONAI's after a validation."""
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.metrics, evaluator.state.key_metric_name = {"MRE": value}, "MRE"
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = best, epoch
    return evaluator


def test_the_bar_shows_loss_and_best_metric_every_tenth_iteration():
    output = {"loss": torch.tensor(0.125)}
    seen = run(range(10), evaluator=evaluation(3.0, 2.5, 1), output=output, look_at=Events.ITERATION_COMPLETED)
    assert [bar[3] for bar in seen] == [None] * 9 + ["loss 0.125, best 2.50 mm"]


def test_before_the_first_validation_there_is_no_best():
    seen = run(range(10), evaluator=evaluation(0.0, -1, -1), output={"loss": torch.tensor(2.0)})
    assert seen[-1][3] == "loss 2"


def test_every_validation_is_a_line_of_its_own(capsys):
    trainer, evaluator = Engine(lambda engine, batch: None), evaluation(3.125, 2.5, 1)
    Progress(evaluator=evaluator, unit="px").attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate():
        evaluator.fire_event(Events.COMPLETED)

    trainer.run(range(2), max_epochs=2)
    assert "epoch 2/2: MRE 3.12 px (best 2.50 in epoch 1)" in capsys.readouterr().out


def test_the_unit_is_that_of_the_validated_images(capsys):
    evaluator = evaluation(3.0, 2.5, 1)
    evaluator.state.batch = [{"unit": "pixel"}]
    trainer = Engine(lambda engine, batch: None)
    trainer.state.epoch, trainer.state.max_epochs = 2, 4
    Progress(evaluator=evaluator).report(evaluator, trainer)
    assert capsys.readouterr().out == "epoch 2/4: MRE 3.00 pixel (best 2.50 in epoch 1)\n"
