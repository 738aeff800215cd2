"""DSYM with copied defects in the place of painted ones, which saves the diffusion model's time."""

_base_ = 'dsym_neu_40pct.py'

train_dataloader = dict(
    dataset=dict(
        sources=dict(
            synthetic=dict(
                synthesiser=dict(_delete_=True, type='mmdsym.CopyPasteSynthesiser'),
                cache_dir='{data_root}copy_paste/{split}',
            )
        )
    )
)
