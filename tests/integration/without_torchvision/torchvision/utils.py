"""The two functions by name; whoever calls them learns that they are not here."""


def make_grid(*args, **kwargs):
    raise NotImplementedError("torchvision is not installed in this test")


save_image = make_grid
