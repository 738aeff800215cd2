"""What diffusion has to beat: copied defects in the place of painted ones, all else alike."""

_base_ = 'supervised_synthetic_neu_40pct.py'

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
