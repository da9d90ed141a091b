"""What a script reads and writes: the files of one device, written once, whole, by rank 0.

    together  something that rank 0 does for all ranks, and how it went
    writing   `open(..., 'w')` and its kind: where the text of other ranks goes
    removing  files and folders made, moved and taken away
    wholly    an object stored with every spread tensor in one piece, under the script's own classes
    saving    `torch.save` and safetensors
    loading   `torch.load`, `load_state_dict`
    pretrained  Hugging Face's `save_pretrained`

`writing` and `removing` are in place before the script starts, the rest when torch is there; all of it sleeps until
the ranks are one device.
"""
