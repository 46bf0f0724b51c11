src / a.py
