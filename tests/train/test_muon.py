import torch
from torch import nn

from deepgen.train.muon import MuonAdamW, hidden_matrices, orthogonalise


def two_copies():
    torch.manual_seed(0)
    shapes = [(8, 24), (8, 24), (24, 8), (8, 8)]
    start = [torch.randn(shape) for shape in shapes]
    return [[nn.Parameter(x.clone()) for x in start] for _ in range(2)], shapes


def test_steps_equal_those_of_torchs_muon():
    (mine, theirs), shapes = two_copies()
    ours = MuonAdamW([{"params": mine, "muon": True}], lr=0.02, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b, shape in zip(mine, theirs, shapes, strict=True):
            a.grad = torch.randn(shape)
            b.grad = a.grad.clone()
        ours.step()
        reference.step()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(
            a, b, atol=2e-3
        )  # both orthogonalise in bf16; the three steps move entries by up to 2e-2


def test_groups_without_the_mark_take_adamws_steps():
    (mine, theirs), shapes = two_copies()
    ours = MuonAdamW([{"params": mine[:2], "muon": True}, {"params": mine[2:]}], lr=0.01)
    reference = torch.optim.AdamW(theirs[2:], lr=0.01)
    for a, b, shape in zip(mine, theirs, shapes, strict=True):
        a.grad = torch.randn(shape)
        b.grad = a.grad.clone()
    ours.step()
    reference.step()
    assert torch.equal(mine[2], theirs[2]) and torch.equal(mine[3], theirs[3])


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 16, 40), (3, 40, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
        assert values.min() > 0.6 and values.max() < 1.3


def test_momentum_survives_saving():
    weight = nn.Parameter(torch.eye(4))
    optimizer = MuonAdamW([{"params": [weight], "muon": True}], lr=0.1)
    weight.grad = torch.randn(4, 4)
    optimizer.step()
    other = MuonAdamW([{"params": [nn.Parameter(torch.eye(4))], "muon": True}], lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    saved = next(iter(other.state.values()))["momentum_buffer"]
    assert torch.equal(saved, optimizer.state[weight]["momentum_buffer"])


def test_hidden_matrices_are_the_trained_weights_of_linear_layers():
    block = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    block[2].weight.requires_grad_(False)
    assert [p is block[0].weight for p in hidden_matrices([block])] == [True]
