"""One round of federated training with a packaged bundle, by MONAI's client.

python federated_round.py BUNDLE SETTINGS.json WEIGHTS_OUT.pt
"""

import json
import sys

import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

bundle, settings, target = sys.argv[1:]
sys.path.insert(0, bundle)
with open(settings) as file:
    values = json.load(file)
algo = MonaiAlgo(bundle, local_epochs=1, send_weight_diff=False, train_kwargs=dict(values), eval_kwargs=dict(values))
algo.initialize(extra={ExtraItems.CLIENT_NAME: "clinic", ExtraItems.APP_ROOT: ""})
received = {name: torch.full_like(value, 0.01) for name, value in algo.trainer.network.state_dict().items()}
rounds = []
for _ in range(2):
    algo.train(ExchangeObject(weights=received))
    rounds.append(algo.get_weights().weights)
metrics = algo.evaluate(ExchangeObject(weights=rounds[-1])).metrics
algo.finalize()
torch.save({"received": received, "rounds": rounds}, target)
print(json.dumps({name: float(value) for name, value in metrics.items()}))
