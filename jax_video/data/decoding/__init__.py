"""Frames out: of video files, of folders of pictures, of packed sets; and the optical flow between them."""
