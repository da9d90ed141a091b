"""What a script draws for the rows of a batch is part of the batch: masks, actions, samples of distributions."""

import pytest
from one_device import plain, same_run
from runtime_ranks import Run, launch, submitit
from test_runtime_parallel import HEAD

# Masks that weigh a loss by hand; a reparametrized sample; actions and their reward; each row's own choice; noise by a mean for
# each number; a last batch of 3 rows. The numbers drawn behind each show whether the ranks' streams are in step.
DRAWN = (
    HEAD
    + """
from torch.distributions import Categorical, Normal, kl_divergence
x, y = torch.randn(19, 6), torch.randint(0, 3, (19,))
net, encoder, decoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), nn.Linear(6, 8), nn.Linear(4, 6)
optim = torch.optim.SGD([*net.parameters(), *encoder.parameters(), *decoder.parameters()], lr=0.1)
def masked(x, y):
    mask = torch.rand(x.shape) < 0.3
    each = (decoder(encoder(x).chunk(2, -1)[0]) - x) ** 2
    return (each * mask).sum() / mask.sum().clamp(min=1), mask.float().mean(), mask.sum() / (~mask).sum()
def chosen(x, y):
    mask = torch.bernoulli(torch.full(x.shape, 0.4)).bool()
    out = decoder(encoder(x.masked_fill(mask, 0.0)).chunk(2, -1)[0])
    return ((out - x)[mask] ** 2).mean(), mask.sum()
def variational(x, y):
    mean, spread = encoder(x).chunk(2, -1)
    sample = Normal(mean, spread.exp()).rsample()
    kl = kl_divergence(Normal(mean, spread.exp()), Normal(0.0, 1.0)).sum(-1).mean()
    return F.mse_loss(decoder(sample), x) + 0.1 * kl, sample.abs().mean()
def acting(x, y):
    policy = Categorical(logits=net(x))
    action = policy.sample()
    reward = (action == y).float()
    return -(policy.log_prob(action) * (reward - reward.mean())).mean() - 0.01 * policy.entropy().mean(), reward.mean()
def picking(x, y):
    out = net(x)
    own = torch.multinomial(out.softmax(-1), 1).squeeze(1)
    return F.cross_entropy(out, own), (own == y).sum()
def noisy(x, y):
    steps = torch.randint(0, 9, (x.shape[0],))
    noise = torch.normal(0.0, 0.3, size=x.shape) + torch.normal(x, 0.1) + torch.empty(x.size(0), 1).exponential_(2.0)
    return F.cross_entropy(net(noise), y), steps.float().mean(), torch.randn_like(x).std()
def stepping(x, y):
    logits = encoder(x).view(-1, 2, 4)
    policy = Categorical(logits=logits)
    action = policy.sample()
    some = Categorical(probs=logits.softmax(-1)).sample((2,))
    reward = (action == y[:, None]).float() - 0.1 * x[:, :1]
    loss = -(policy.log_prob(action) * reward).mean() - 0.01 * policy.entropy().sum()
    return loss, action.sum(), len(action), some.sum(), Normal(logits, 1.0).rsample().sum()
for compute in masked, chosen, variational, acting, picking, noisy, stepping:
    for step, (rows, labels) in enumerate(DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)):
        loss, *others = compute(rows, labels)
        optim.zero_grad()
        loss.backward()
        optim.step()
        print(compute.__name__, step, loss.item(), *(float(each) for each in others), torch.rand(1).item())
torch.save([*net.parameters(), *encoder.parameters(), *decoder.parameters()], sys.argv[1])
"""
)


@pytest.mark.parametrize("count", [2, 3])
def test_what_is_drawn_for_rows_is_that_of_one_device(work, count):
    lines, weights = plain(work, DRAWN)
    same_run(work, DRAWN, lines, weights, count)


# How many random numbers these take depends on what they draw, so they are no numbers of one device; but each row has its own,
# and what is drawn behind them is alike on all ranks.
APART = (
    HEAD
    + """
model = nn.Linear(4, 1)
optim = torch.optim.SGD(model.parameters(), lr=0.1)
for (rows,) in DataLoader(TensorDataset(torch.ones(14, 4)), batch_size=7):
    mixed = torch.distributions.Beta(0.4, 0.4).sample((rows.size(0),))[:, None]
    counted = torch.poisson(rows * 50.5)
    loss = F.mse_loss(model(rows * mixed + counted / 50), rows[:, :1])
    optim.zero_grad()
    loss.backward()
    optim.step()
    later = torch.rand(rows.size(0), 2)
    print(*(len({tuple(row) for row in each.tolist()}) for each in (counted, later)))
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_what_takes_as_many_numbers_as_it_happens_to_draws_another_one_for_each_row(work):
    run = Run(work / "run", launch(2))
    ranks = run.ranks(submitit(2), run.script(APART), str(work / "mine.pt"))
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    assert ranks[0].out.splitlines() == ["7 7", "7 7"]


MEMBERS = (
    HEAD
    + """
import numpy as np
np.random.seed(3)
both = nn.ModuleDict({"G": nn.Linear(3, 6), "D": nn.Linear(6, 1)})
optim = torch.optim.SGD(both.parameters(), lr=0.1)
for (x,) in DataLoader(TensorDataset(torch.randn(14, 6)), batch_size=5):
    fake = both["G"](MADE)
    loss = F.softplus(-both["D"](fake)).mean() + F.softplus(both["D"](x)).mean()
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(loss.item(), len(fake), fake.mean(0).tolist(), (both["D"](fake) > 0).sum().item())
torch.save([p.detach() for p in both.parameters()], sys.argv[1])
"""
)


@pytest.mark.parametrize("made", ["torch.as_tensor(NOISE, dtype=x.dtype)", "torch.from_numpy(NOISE).float()"])
def test_rows_that_numpy_drew_are_followed_where_the_models_are_members_of_a_dictionary(work, made):
    text = MEMBERS.replace("MADE", made.replace("NOISE", "np.random.normal(0, 1, (x.shape[0], 3))"))
    same_run(work, text, *plain(work, text), 2)


# By chance as many as a rank of three has rows, and no rows: where the pictures of a batch are cut, and how much they change.
PLACES = (
    HEAD
    + """
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
optim = torch.optim.SGD(model.parameters(), lr=0.1)
data = TensorDataset(torch.rand(14, 1, 8, 8), torch.randint(0, 3, (14,)))
for rows, labels in DataLoader(data, batch_size=7):
    top, left = torch.randint(0, 5, (2,)).tolist()
    rows = rows.clone()
    rows[:, :, top : top + 3, left : left + 3] = 0
    angles, scales = torch.rand(3), torch.empty(2).uniform_(0.9, 1.1)
    loss = F.cross_entropy(model(rows * scales.mean() + angles.mean()), labels)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(top, left, loss.item(), angles.sum().item(), scales.sum().item(), torch.rand(4).sum().item())
torch.save(model.state_dict(), sys.argv[1])
"""
)


def test_numbers_that_are_by_chance_as_many_as_a_ranks_rows_are_the_scripts(work):
    lines, weights = plain(work, PLACES)
    same_run(work, PLACES, lines, weights, 3)
