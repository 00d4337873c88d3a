"""The 37 landmarks of the left hand X-ray, in the order of the Digital Hand Atlas annotations.

Counted from zero: distal ulna and radius (0-5), proximal ends of seven carpals (6-12), metacarpal bases from
the little finger to the thumb (13-17), then the joints of the digits from the thumb to the little finger. A
joint carries its name, its point lies on bone: at the base of the proximal phalanx for MCP, at the head of
the phalanx below for IP, PIP and DIP, at the end of the tuft for the tip.
"""

HAND_LANDMARKS = (
    "ulna_medial",
    "ulna_styloid",
    "ulna_lateral",
    "radius_medial",
    "radius_lateral",
    "radius_styloid",
    "triquetrum_proximal",
    "lunate_proximal",
    "scaphoid_proximal",
    "hamate_proximal",
    "capitate_proximal",
    "trapezoid_proximal",
    "trapezium_proximal",
    "little_metacarpal_base",
    "ring_metacarpal_base",
    "middle_metacarpal_base",
    "index_metacarpal_base",
    "thumb_metacarpal_base",
    "thumb_mcp",
    "thumb_ip",
    "thumb_tip",
    "index_mcp",
    "index_pip",
    "index_dip",
    "index_tip",
    "middle_mcp",
    "middle_pip",
    "middle_dip",
    "middle_tip",
    "ring_mcp",
    "ring_pip",
    "ring_dip",
    "ring_tip",
    "little_mcp",
    "little_pip",
    "little_dip",
    "little_tip",
)

# The two styloids: 50 mm between them is the unit of the published evaluations of this data set.
WRIST_LANDMARKS = (1, 5)
WRIST_WIDTH_MM = 50.0
