# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
# ---

# %% [markdown]
# # A tour of fedprune
#
# Open this file in Jupyter (with jupytext) or VS Code as a notebook, or run it as a script. Three devices with few
# images each keep every cell at seconds; leave `small` out for the run that `make run` does.

# %%
import fedprune as fp

small = {
    "data": {"train_per_class": 12, "test_per_class": 4},
    "partition": {"devices": 3},
    "features": {"dimensions": 8, "anchors": 5},
    "mixture": {"components": 2},
    "proxy_size": 32,
}

# %% [markdown]
# One run: devices report mixtures, the server prunes a model for each. A run that is there is read, not run again.

# %%
run = fp.run(**small, seed=0, budgets={"removed": [0.5, 0.8]})
run

# %%
run.devices[["device", "task", "params", "base_params", "edge_correct", "test_images"]]

# %%
run.plot()

# %% [markdown]
# A device's model is a plain PyTorch module. It answers with all classes it was given.

# %%
model, class_names, preprocess = run.edge_model(1)
sum(parameter.numel() for parameter in model.parameters()), class_names[:5]

# %% [markdown]
# What has the device released, and under which protection? Every field stands in its ledger.

# %%
run.ledger.rows()[:3]

# %% [markdown]
# Many runs: every list is an axis. Here all cells are one run each, done in turn; `fp.sweep` does the same in child
# processes and goes on where it was stopped.

# %%
for method in ("fedprune", "random"):
    fp.run(**small, method=method)
fp.table(**small, method=["fedprune", "random"])["mean"].round(1)

# %%
fp.list_runs()
