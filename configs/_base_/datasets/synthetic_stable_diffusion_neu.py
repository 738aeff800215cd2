# synthetic_stable_diffusion.py with words for the six defects of NEU-DET.
_base_ = 'synthetic_stable_diffusion.py'

synthesiser = dict(
    prompts={
        'crazing': 'grey microscope photo of a steel surface with a network of fine cracks',
        'inclusion': 'grey microscope photo of a steel surface with dark elongated inclusions',
        'patches': 'grey microscope photo of a steel surface with dark blotchy patches',
        'pitted_surface': 'grey microscope photo of a steel surface full of small corrosion pits',
        'rolled-in_scale': 'grey microscope photo of a steel surface with rolled-in scale flakes',
        'scratches': 'grey microscope photo of a steel surface with bright straight scratches',
    },
    clean_prompt='grey microscope photo of a plain rolled steel surface',
    negative_prompt='colour, text, people, objects',
)
