// The pivot: a figure over two settings, as a table with heat colours and as one curve per row.

views.push({id: 'pivot', title: 'Sweep', render(section) {}});
