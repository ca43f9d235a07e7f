"""A window that shows pictures, with tkinter."""

from PIL import Image

from kpose.core.errors import InputError

# The largest part of the screen that a window covers.
PART = 0.9


class Window:
    """A window for pictures; a context manager. It is open until the user closes it.

    Args:
        title: text of its frame.

    Attributes:
        is_open: False after the user closed it, or pressed q or Escape.

    Raises:
        InputError: there is no screen, or Python lacks tkinter.
    """

    def __init__(self, title):
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError:
            raise InputError(
                "--show needs tkinter, which this Python lacks (Debian and Ubuntu: apt install python3-tk): leave "
                "--show out"
            ) from None
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError:
            raise InputError("--show needs a screen, and there is none: leave --show out") from None
        self._error = tkinter.TclError
        self._as_photo = ImageTk.PhotoImage
        self._root.title(title)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._photo = None
        self.is_open = True
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("q", "<Escape>"):
            self._root.bind(key, lambda _: self.close())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def show(self, picture):
        """Shows a PIL image, reduced if it is larger than the screen."""
        if not self.is_open:
            return
        width, height = self._root.winfo_screenwidth(), self._root.winfo_screenheight()
        share = min(PART * width / picture.width, PART * height / picture.height, 1)
        if share < 1:
            size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        try:
            # Tk shows a picture only while Python holds it.
            self._photo = self._as_photo(picture, master=self._root)
            self._label.configure(image=self._photo)
            self._root.update()
        except self._error:
            self.is_open = False

    def close(self):
        """Closes the window."""
        if self.is_open:
            self.is_open = False
            self._root.destroy()
